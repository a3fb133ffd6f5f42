"""`python -m qwen2eval` is `qwen2eval`."""

import sys

from qwen2eval.cli import main

sys.exit(main())
