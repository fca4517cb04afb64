//! The Python module `taskbridge.native._native`; `python/taskbridge/native/_native.pyi` documents it.

mod batches;
mod edge;
mod fold;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<batches::BatchBuilder>()?;
    module.add_class::<batches::FetchedRecord>()?;
    module.add_class::<batches::Records>()?;
    module.add_function(wrap_pyfunction!(batches::read_batch, module)?)?;
    module.add_class::<edge::Edge>()?;
    module.add_function(wrap_pyfunction!(edge::read_request, module)?)?;
    module.add_class::<fold::Core>()?;
    module.add_class::<fold::Folded>()
}
