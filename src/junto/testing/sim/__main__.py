# SPDX-License-Identifier: Apache-2.0
"""`python -m junto.testing.sim`."""

import sys

from junto.testing.sim.many import main

if __name__ == "__main__":
    sys.exit(main())
