"""`--model vllm`."""
