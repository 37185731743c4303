//! Many pipelines become ready, and then nobody writes.
