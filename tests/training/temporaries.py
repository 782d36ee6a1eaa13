"""Prints what the compiler says of the training steps of a U-Net on simulated devices.

  python -m tests.training.temporaries '{"devices.fsdp": 4}' ...

One line of JSON for each argument, whose keys change the configuration: `temporary` bytes per
device, and how often each kind of collective stands in the program. A process of its own, because
the flags of XLA's compiler are read once. As it comes, that compiler merges what a program gathers
or computes twice, and orders operations so that many can run at once: on a CPU either takes back
what was saved, on no other device does it happen.
"""

import collections
import json
import os
import re
import sys

FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_disable_hlo_passes=cse "
    "--xla_cpu_enable_concurrency_optimized_scheduler=false"
)
SMALL = {
    "restorer.net.inner": 32,
    "restorer.net.multipliers": (1, 2, 4),
    "restorer.net.res_blocks": 1,
    "restorer.net.attn_res": (),
    "restorer.dtype": "float32",
    "data.size": 16,
    "data.batch": 8,
}


def compiled(changes: dict):
    """The compiled training step of restore.py with these changes."""
    import jax

    from diffv2iqa_jax import config as configs
    from diffv2iqa_jax.tasks.example import example
    from diffv2iqa_jax.training import setup

    config = configs.plain(configs.override(configs.load("restore"), changes))
    programs = setup.programs(config)
    state = jax.eval_shape(programs.create, jax.random.key(0), {})
    count, one = config["data"]["batch"], example(config["data"]["size"])
    batch = {k: jax.ShapeDtypeStruct((count, *v.shape[1:]), v.dtype) for k, v in one.items()}
    return programs.train_step.lower(state, batch).compile()


def main(arguments: list[str]) -> None:
    os.environ["XLA_FLAGS"] = FLAGS
    from diffv2iqa_jax.training import sharding

    sharding.STATE_MIN = 2**12  # as much of the small net is split as of the full one
    for argument in arguments:
        program = compiled(SMALL | json.loads(argument))
        kinds = re.findall(r"(all-\w+|reduce-scatter)(?:-start)?\(", program.as_text())
        temporary = program.memory_analysis().temp_size_in_bytes
        print(json.dumps({"temporary": temporary, **collections.Counter(kinds)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
