"""Prints the runs of an experiment as MLflow's own client finds them: status, params, tags and metrics by step."""

import json
import sys

from mlflow import MlflowClient

client = MlflowClient(tracking_uri=sys.argv[1])
experiment = client.get_experiment_by_name(sys.argv[2])
runs = []
for run in client.search_runs([experiment.experiment_id]):
    runs.append({
        "status": run.info.status,
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            key: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        },
    })
print(json.dumps(runs))
