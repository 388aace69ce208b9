"""``python -m bench.dicom``: see ``bench.dicom.decoding``."""

import sys

from bench.dicom.decoding import main

if __name__ == "__main__":
    sys.exit(main())
