"""What benchmarks share: settings from texts FIELD=VALUE, options, and the file of results."""

import argparse
import json
import pathlib
import platform

import jax

from cefl_jax import config


def make_spec(fields):
    """Returns the default settings but for the fields set.

    Args:
      fields: texts `FIELD=VALUE`, such as train.optimizer.momentum=0.9; a later one wins.
    Raises:
      SettingError: for an unknown field, and what the settings' own checks refuse.
    """
    return config.to_spec(set_fields(config.default_config(), fields))


def set_fields(settings, fields):
    """Returns the settings, a ConfigDict, in which texts `FIELD=VALUE` have been set."""
    for field in fields:
        path, _, text = field.partition("=")
        config.set_field(settings, path, text)
    return settings


def make_parser(doc):
    """Returns a parser with the option of all benchmarks, `--json`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="file for the results")
    return parser


def about_machine():
    """Returns the device, the version of JAX, and the machine."""
    device = jax.devices()[0].device_kind
    return {"device": device, "jax": jax.__version__, "machine": platform.platform()}


def write_json(path, facts):
    """Writes facts, or nothing where `--json` was left out."""
    if path:
        path.write_text(json.dumps(facts, indent=1) + "\n")
