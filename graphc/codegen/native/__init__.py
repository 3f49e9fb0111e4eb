"""The native CPU back end: loop IR printed as LLVM IR, compiled in-process through llvmlite (extra ``native``)."""
