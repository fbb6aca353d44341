"""The `metrics.jsonl` of many runs, read by one query of DuckDB."""

import glob
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cefl_jax.runtime.summary import MAX_METRIC, MAX_METRICS_BYTES
from cefl_jax.safe_read import InputFileError, MissingError, check_file, one_line, show

MAX_METRICS = 500  # each is an array as long as there are rounds
MAX_NAME = 100  # characters

LINES = """
CREATE TEMP TABLE lines AS
SELECT filename AS file, json, TRY_CAST(json->>'round' AS BIGINT) AS round
FROM read_json_objects($files, format='newline_delimited', ignore_errors=true, filename=true,
                       hive_partitioning=false)
"""
FAULTS = """
SELECT file, CASE
    WHEN count(*) FILTER (json IS NULL) > 0 THEN 'has a line that is not JSON'
    WHEN count(*) FILTER (json_type(json) <> 'OBJECT') > 0 THEN 'has a line that is not a record'
    WHEN count(round) FILTER (json_type(json, '$.round') IN ('BIGINT', 'UBIGINT')) < count(*)
        THEN 'has a line without a round'
    WHEN count(DISTINCT round) < count(*) THEN 'has a round twice'
END AS fault
FROM lines GROUP BY file HAVING fault IS NOT NULL
"""
SERIES = """
SELECT file, entry.key,
    list(round ORDER BY round),
    list(TRY_CAST(entry.value AS DOUBLE) ORDER BY round),
    count(*) FILTER (entry.type = 'NULL' OR NOT isfinite(TRY_CAST(entry.value AS DOUBLE))),
    count(*) FILTER (entry.type NOT IN ('DOUBLE', 'BIGINT', 'UBIGINT', 'NULL')),
    count(DISTINCT round) < count(*)
FROM lines, json_each(lines.json) AS entry
WHERE json_type(lines.json) = 'OBJECT' AND round IS NOT NULL
GROUP BY file, entry.key
ORDER BY file, min(entry.id)
"""


class Metrics(NamedTuple):
    """The evaluations of one run, in the order of their rounds."""

    values: dict  # metric: f64[T], nan where it is missing or was not finite
    skipped: dict  # metric: number of values that were not finite, where there are any


def read_metrics(files: Sequence[str]) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Returns the evaluations in each file.

    A value that was not finite is null in the file. A metric that a run does not have is absent.

    Args:
      files: absolute paths.
    Returns:
      {file: Metrics}, and {file: why it cannot be read}; each file is in one of the two.
    """
    import duckdb  # here: an experiment says in one line that it is missing, before its runs

    faults = {}
    for file in files:
        try:
            check_file(file, MAX_METRICS_BYTES)
            file.encode()
        except MissingError:
            faults[file] = "is missing"
        except UnicodeEncodeError:
            faults[file] = "is in a folder whose name is not UTF-8"
        except InputFileError as error:
            faults[file] = str(error)
    files = [file for file in files if file not in faults]
    try:
        series, found = _query(files)
    except duckdb.Error:  # it does not say of which
        series, found = {}, {}
        for file in files:
            try:
                one, fault = _query([file])
            except duckdb.Error as error:
                one, fault = {}, {file: f"cannot be read: {one_line(error):.200}"}
            series, found = series | one, found | fault
    faults |= found
    return {file: _align(of) for file, of in series.items() if file not in faults}, faults


def _query(files):
    """{file: {metric: its rounds, values, and how many are not finite}}, and {file: fault}."""
    import duckdb

    if not files:
        return {}, {}
    series: dict[str, dict] = {file: {} for file in files}
    with duckdb.connect() as connection:
        # DuckDB takes the names of files for patterns.
        connection.execute(LINES, {"files": [glob.escape(file) for file in files]})
        faults = dict(connection.execute(FAULTS).fetchall())
        for file, metric, *found in connection.execute(SERIES).fetchall():
            fault = _fault(metric, *found)
            if fault:
                faults.setdefault(file, fault)
            elif len(series[file]) < MAX_METRICS:
                series[file][metric] = found[0], np.array(found[1], float), found[2]
            else:
                faults.setdefault(file, f"has more than {MAX_METRICS} metrics")
    return series, {file: "is empty" for file in files if not series[file]} | faults


def _fault(metric, _, values, __, others, is_twice):
    """What is wrong with a metric, or None."""
    name = metric if metric.isprintable() and len(metric) <= MAX_NAME else show(metric)
    if name != metric:
        return f"has a metric called {name}"
    if others:
        return f"has values of {name} that are no numbers"
    if is_twice:
        return f"has {name} twice in a line"
    if any(value is not None and MAX_METRIC < abs(value) < math.inf for value in values):
        return f"has values of {name} beyond {MAX_METRIC:g}"
    return None


def _align(series):
    """Metrics at all rounds of a run, from each metric's own rounds."""
    all_rounds = series["round"][0]
    values = {}
    for metric, (rounds, known, _) in series.items():
        values[metric] = np.full(len(all_rounds), np.nan)
        known = np.where(np.isfinite(known), known, np.nan)
        values[metric][np.searchsorted(all_rounds, rounds)] = known
    return Metrics(values, {metric: nulls for metric, (_, _, nulls) in series.items() if nulls})
