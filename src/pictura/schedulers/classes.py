"""The scheduler classes of diffusers that are samplers here: what they are called, accept and assume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pictura.errors import ParameterError, PresetError

__all__ = ["BY_SAMPLER", "Settings", "is_flow", "own_sampler", "settings"]

Settings = Mapping[str, Any]

BY_SAMPLER = {
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpmpp_2m_sde": "DPMSolverMultistepScheduler",
    "dpmpp_sde": "DPMSolverSDEScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
    "pndm": "PNDMScheduler",
}
FLOWS = {
    "FlowMatchEulerDiscreteScheduler": "euler",
    "FlowMatchHeunDiscreteScheduler": "heun",
    "FlowMatchLCMScheduler": "lcm",
}

_BETAS = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon", "steps_offset": 0,
}  # fmt: skip
_NARROW = {"beta_start": 0.00085, "beta_end": 0.012}
_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_ENDS = {"set_alpha_to_one": True, "rescale_betas_zero_snr": False}
_MULTISTEP = {
    **_BETAS, **_SIGMAS, "solver_order": 2, "lower_order_final": True, "timestep_spacing": "linspace",
    "final_sigmas_type": "zero", "rescale_betas_zero_snr": False, "thresholding": False,
}  # fmt: skip
_ACCEPTED: dict[str, dict[str, Any]] = {
    "EulerDiscreteScheduler": {
        **_BETAS, **_SIGMAS, "timestep_spacing": "linspace", "rescale_betas_zero_snr": False,
        "final_sigmas_type": "zero", "sigma_min": None, "sigma_max": None, "interpolation_type": "linear",
        "timestep_type": "discrete",
    },
    "EulerAncestralDiscreteScheduler": {
        **_BETAS, "timestep_spacing": "linspace", "rescale_betas_zero_snr": False,
    },
    "HeunDiscreteScheduler": {**_BETAS, **_NARROW, **_SIGMAS, "timestep_spacing": "linspace"},
    "DDIMScheduler": {**_BETAS, **_ENDS, "timestep_spacing": "leading", "thresholding": False},
    "PNDMScheduler": {**_BETAS, "set_alpha_to_one": False, "timestep_spacing": "leading"},
    "LCMScheduler": {
        **_BETAS, **_NARROW, **_ENDS, "beta_schedule": "scaled_linear", "original_inference_steps": 50,
        "timestep_scaling": 10.0, "thresholding": False,
    },
    "DPMSolverSDEScheduler": {**_BETAS, **_NARROW, **_SIGMAS, "timestep_spacing": "linspace"},
    "DPMSolverMultistepScheduler": {
        **_MULTISTEP, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "euler_at_final": False,
        "use_lu_lambdas": False, "lambda_min_clipped": float("-inf"),
    },
    "UniPCMultistepScheduler": {
        **_MULTISTEP, "solver_type": "bh2", "predict_x0": True, "disable_corrector": [],
    },
}  # fmt: skip
_FLOW = {
    **_SIGMAS, "shift": 1.0, "use_dynamic_shifting": False, "base_shift": 0.5, "max_shift": 1.15,
    "base_image_seq_len": 256, "max_image_seq_len": 4096, "shift_terminal": None, "invert_sigmas": False,
    "time_shift_type": "exponential", "num_train_timesteps": 1000,
}  # fmt: skip

# What is not written here, with the values that are.
_ONLY: dict[str, tuple[Any, ...]] = {
    "use_beta_sigmas": (False, None), "thresholding": (False, None), "interpolation_type": ("linear",),
    "timestep_type": ("discrete",), "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
    "predict_x0": (True,), "invert_sigmas": (False, None),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "timestep_spacing": ("linspace", "leading", "trailing"), "final_sigmas_type": ("zero", "sigma_min"),
    "time_shift_type": ("exponential", "linear"),
}  # fmt: skip


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether the model was trained as a rectified flow."""
    name = str(config.get("_class_name", ""))
    return name.startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction"


def own_sampler(config: Mapping[str, Any]) -> str:
    """The sampler that a configuration's own class is; ParameterError where there is none here."""
    name = str(config.get("_class_name", ""))
    if name == "FlowMatchEulerDiscreteScheduler" and config.get("stochastic_sampling"):
        return "lcm"
    if name in FLOWS:
        return FLOWS[name]
    if name == "DPMSolverMultistepScheduler" and config.get("algorithm_type") == "sde-dpmsolver++":
        return "dpmpp_2m_sde"
    known = {scheduler: sampler for sampler, scheduler in reversed(BY_SAMPLER.items())}
    if name not in known:
        raise ParameterError(
            f"the model's own scheduler {name!r} has no sampler here; name one of {', '.join(BY_SAMPLER)}",
            parameter="sampler",
        )
    return known[name]


def settings(config: Mapping[str, Any], sampler: str) -> Settings:
    """The configuration as the sampler's class reads it; one that is not ours reads as Euler's does.

    PresetError where it asks for what is not written here.
    """
    name = BY_SAMPLER.get(sampler, "EulerDiscreteScheduler")
    defaults = _FLOW if is_flow(config) else _ACCEPTED[name]
    chosen = {**defaults, **{key: value for key, value in config.items() if key in defaults}}
    if is_flow(config) and "flow_shift" in config:
        chosen["shift"] = config["flow_shift"]
    for key, allowed in _ONLY.items():
        if key in chosen and chosen[key] not in allowed:
            listed = " or ".join(map(repr, allowed))
            raise PresetError(f"scheduler setting {key}={chosen[key]!r} is not supported; only {listed} is")
    solver = {"DPMSolverMultistepScheduler": "midpoint", "UniPCMultistepScheduler": "bh2"}.get(name)
    if solver is not None and not is_flow(config):
        _check_multistep(name, chosen, solver)
    return chosen


def _check_multistep(name: str, chosen: Settings, solver: str) -> None:
    most = 3 if name == "UniPCMultistepScheduler" else 2
    if chosen["solver_order"] not in range(1, most + 1):
        raise PresetError(f"scheduler setting solver_order={chosen['solver_order']!r} is not 1..{most}")
    # Each class takes the other's names for its own default.
    alike = {"midpoint": ("midpoint", "logrho", "bh1", "bh2"), "bh2": ("bh2", "midpoint", "heun", "logrho")}
    if chosen["solver_type"] not in alike[solver]:
        kind = chosen["solver_type"]
        raise PresetError(f"scheduler setting solver_type={kind!r} is not supported; only {solver!r} is")
    if chosen.get("disable_corrector") or not chosen["lower_order_final"] and solver == "bh2":
        raise PresetError("unipc without its corrector or its lower last orders is not supported")
