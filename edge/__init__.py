"""The runtime: samples in, activity labels out. Needs numpy, scipy, onnxruntime and rich only."""
