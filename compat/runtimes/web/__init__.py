"""ONNX Runtime Web: a page in a browser, its driver, and a server on the loopback between."""
