//! The Python module `taskbridge.native._native`. See `python/taskbridge/native/_native.pyi`.

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<crate::edge::python::Edge>()?;
    module.add_class::<crate::fold::python::Core>()?;
    module.add_class::<crate::fold::records::Folded>()
}
