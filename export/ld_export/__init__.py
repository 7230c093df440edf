"""From a checkpoint to files that run: ONNX, engines, and the proof that they agree with PyTorch."""
