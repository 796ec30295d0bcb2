package mlflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"evenweave/internal/job"
)

// client calls MLflow's REST API, version 2.0.
type client struct {
	base string
	http *http.Client
}

const (
	callTimeout = 10 * time.Second
	maxReply    = 1 << 20 // bytes
)

// CheckURL returns nil for the address of a tracking server.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("expected one like http://127.0.0.1:5000")
	}
	if err != nil {
		return fmt.Errorf("%q: %w", job.Clean(address), err)
	}
	return nil
}

// refusal is an answer that says no: the same request would be refused again, unless temporary.
type refusal struct {
	status int
	code   string
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("status %d %s: %s", r.status, job.Clean(r.code), job.Clean(r.text))
}

func (r *refusal) temporary() bool { return r.status >= 500 || r.status == http.StatusTooManyRequests }

// call posts a request, or gets if it has no body, and decodes the reply.
func (c client) call(ctx context.Context, path string, body, reply any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	method, content := http.MethodGet, []byte(nil)
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		method, content = http.MethodPost, text
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+"/api/2.0/mlflow/"+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	authorize(r)
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxReply))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		var said struct {
			Code    string `json:"error_code"`
			Message string `json:"message"`
		}
		_ = json.Unmarshal(text, &said) // a proxy's error is no JSON
		return &refusal{answer.StatusCode, said.Code, said.Message}
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(text, reply); err != nil {
		return fmt.Errorf("the reply to %s: %w", path, err)
	}
	return nil
}

// authorize adds what MLflow's own clients take from the environment.
func authorize(r *http.Request) {
	if token := os.Getenv("MLFLOW_TRACKING_TOKEN"); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	} else if user := os.Getenv("MLFLOW_TRACKING_USERNAME"); user != "" {
		r.SetBasicAuth(user, os.Getenv("MLFLOW_TRACKING_PASSWORD"))
	}
}

// experiment returns the id of an experiment, which it makes if there is none.
func (c client) experiment(ctx context.Context, name string) (string, error) {
	var found struct {
		Experiment struct {
			ID string `json:"experiment_id"`
		}
	}
	err := c.call(ctx, "experiments/get-by-name?experiment_name="+url.QueryEscape(name), nil, &found)
	var refused *refusal
	if err == nil || !errors.As(err, &refused) || refused.code != "RESOURCE_DOES_NOT_EXIST" {
		return found.Experiment.ID, err
	}
	var made struct {
		ID string `json:"experiment_id"`
	}
	err = c.call(ctx, "experiments/create", map[string]string{"name": name}, &made)
	return made.ID, err
}

type keyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type metric struct {
	Key       string  `json:"key"`
	Value     float64 `json:"value"`
	Timestamp int64   `json:"timestamp"` // milliseconds
	Step      int64   `json:"step"`
}

const jobTag = "evenweave.job"

// run returns the id of the job's run: that of an earlier process, which it opens again, or a new one.
func (c client) run(ctx context.Context, experiment, name, uuid string, tags []keyValue) (string, error) {
	type info struct {
		Info struct {
			ID string `json:"run_id"`
		}
	}
	var found struct{ Runs []info }
	filter := fmt.Sprintf("tags.`%s` = '%s'", jobTag, strings.ReplaceAll(uuid, "'", ""))
	if err := c.call(ctx, "runs/search", map[string]any{"experiment_ids": []string{experiment}, "filter": filter,
		"max_results": 1}, &found); err != nil {
		return "", err
	}
	if len(found.Runs) > 0 {
		id := found.Runs[0].Info.ID
		return id, c.call(ctx, "runs/update", map[string]any{"run_id": id, "status": "RUNNING"}, nil)
	}
	var made struct{ Run info }
	err := c.call(ctx, "runs/create", map[string]any{"experiment_id": experiment, "run_name": name,
		"start_time": time.Now().UnixMilli(), "tags": append(tags, keyValue{jobTag, uuid})}, &made)
	return made.Run.Info.ID, err
}
