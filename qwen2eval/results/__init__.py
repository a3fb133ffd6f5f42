"""What is made of answers: samples, scores, health, contamination, and the run folder's tables."""
