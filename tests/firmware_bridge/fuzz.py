"""How long decoders are fuzzed: FUZZ_EXAMPLES=4000 python -m pytest tests/firmware_bridge"""

import os

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
"""Of each property."""
