import os

from server.cli import main

code = main()
# Not sys.exit: that joins threads and drops native objects, which can take long or crash while a worker is in them.
os._exit(code)
