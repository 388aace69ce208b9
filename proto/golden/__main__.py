import sys

from proto.golden.messages import write_files

sys.exit(write_files())
