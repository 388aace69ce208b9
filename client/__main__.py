import sys

from client._cli import main

sys.exit(main())
