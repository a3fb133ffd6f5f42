"""`python -m qwen2eval` is `qwen2eval`."""

import sys

from qwen2eval.cli.main import main

sys.exit(main())
