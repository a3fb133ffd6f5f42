"""The benchmarks' data, read from their published file formats, a data package or the Hugging Face hub."""
