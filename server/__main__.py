import os
import sys

from server.cli import main

code = main()
sys.stdout.flush()
# Not sys.exit: that joins threads and drops native objects, which can take long or crash while a worker is in them.
os._exit(code)
