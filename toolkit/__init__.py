"""vlm-rlhf: fine-tune vision-language models with SFT, reward models, PPO and DPO, and score them honestly.

Importing this package loads no torch: heavy libraries are imported by the modules that need them.
"""

__version__ = "0.1.0"
