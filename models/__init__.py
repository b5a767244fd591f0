"""Language models: chat encoding, NF4, adapters, training, generation, NLI, the miniatures."""

import logging

# bitsandbytes asks every process on a CPU with AVX512-BF16 to install a package that would fetch a
# kernel from the network; models.quantisation pins the layout that does without that kernel.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
