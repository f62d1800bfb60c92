"""The runtime: samples in, activity labels out, with numpy, onnxruntime, rich and platformdirs."""
