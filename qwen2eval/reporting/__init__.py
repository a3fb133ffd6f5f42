"""From a finished run to the terminal, `report.html` and `report.md`. Formats what is there and computes no score."""
