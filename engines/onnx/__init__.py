"""Load and rewrite ONNX models: precision, quantization, dynamic convolutions."""
