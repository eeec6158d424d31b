"""The CPU as the job's machine, in each precision."""

import torch

from job.run.machine import Machine

CPU = Machine(torch.device("cpu"), "fp32")
BF16, FP16 = (Machine(torch.device("cpu"), precision) for precision in ("bf16", "fp16"))
