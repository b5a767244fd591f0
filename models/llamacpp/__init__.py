"""The formats and the runtime of llama.cpp: what phones run instead of PyTorch.

A base model and its adapters are written as GGUF with the ``gguf`` package alone; the binding
(``make llamacpp``) is needed to answer through llama.cpp, never to export.
"""
