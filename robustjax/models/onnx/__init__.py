"""Networks as ONNX graphs, run node by node."""
