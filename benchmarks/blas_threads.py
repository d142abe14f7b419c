"""Matrix products on one thread, as replays run a process a core: imported before NumPy is.

On small matrices two threads mostly wait for each other: a race of 135 epochs took 2 seconds of
processor time with them and takes 0.25 without.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
