package mlflow

import (
	"fmt"
	"strings"

	"evenweave/internal/job"
)

// Params are a spec's settings as parameters of a run.
func Params(s job.Spec) map[string]string {
	params := map[string]string{
		"task": s.Task, "data": s.Data, "samples": fmt.Sprint(s.Samples), "seed": fmt.Sprint(s.Seed),
		"global_batch": fmt.Sprint(s.GlobalBatch), "micro_batch": fmt.Sprint(s.MicroBatch),
		"epochs": fmt.Sprint(s.Epochs), "steps": fmt.Sprint(s.TotalSteps()),
	}
	if s.OnNonfinite != "" {
		params["on_nonfinite"] = s.OnNonfinite
	}
	for name, value := range s.Options {
		if len(params) < maxParams {
			params["option/"+name] = strings.Trim(string(value), `"`)
		}
	}
	return params
}

const maxParams = 100 // of one request, as the server allows
