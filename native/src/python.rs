//! The Python module `taskbridge.native._native`. See `python/taskbridge/native/_native.pyi`.

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<crate::batches::python::BatchBuilder>()?;
    module.add_class::<crate::batches::python::FetchedRecord>()?;
    module.add_class::<crate::batches::python::Records>()?;
    module.add_function(wrap_pyfunction!(crate::batches::python::read_batch, module)?)?;
    module.add_class::<crate::edge::python::Edge>()?;
    module.add_class::<crate::fold::python::Core>()?;
    module.add_class::<crate::fold::records::Folded>()
}
