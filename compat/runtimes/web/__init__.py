"""ONNX Runtime Web: a page in a browser, the browser's driver, and a server for the page."""
