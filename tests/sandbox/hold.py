"""Keeps a sandbox busy with programs that never end, and waits to be killed. Standard library only."""

import sys
import threading
import time

from qwen2eval.sandbox import Check, Sandbox

SPIN = "open('left', 'w').close()\nimport signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass"
SLEEP = "import time\ndef f(x): time.sleep(600)"


def main():
    spin = Check(SPIN, timeout_seconds=600)
    call = Check(SLEEP, entry_point="f", tests="assert f(1) == 2", timeout_seconds=600)
    with Sandbox(sys.argv[1], workers=3) as sandbox:
        threading.Thread(target=sandbox.check_many, args=([spin, call, spin],), daemon=True).start()
        time.sleep(600)


if __name__ == "__main__":
    main()
