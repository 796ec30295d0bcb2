package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPartsAreListed: what is built in and fetched beside the Go modules stands in the list of parts, with its hash.
func TestPartsAreListed(t *testing.T) {
	out := strings.TrimSuffix(strings.TrimSpace(run(t, ".", "./sbom.sh", "parts")), ",")
	var parts []struct {
		Type, Name, Version string
		Hashes              []struct{ Content string }
	}
	if err := json.Unmarshal([]byte("["+out+"]"), &parts); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	count := map[string]int{}
	for _, p := range parts {
		count[p.Type]++
		if p.Name == "" || p.Version == "" || p.Type != "container" && (len(p.Hashes) != 1 ||
			len(p.Hashes[0].Content) != 64) {
			t.Errorf("part %+v", p)
		}
	}
	compose, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	// The build stage's image, the base, and those that Compose names; the plug-in with the CUDA one's four; the data.
	images := strings.Count(string(compose), " image: ") - strings.Count(string(compose), " image: ${") + 2
	if strings.Count(string(dockerfile), "\nFROM ") != 2 || count["container"] != images ||
		count["library"] < 2 || count["data"] != 4 {
		t.Errorf("parts %v, images %d", count, images)
	}
}

// TestPin writes the digests that a registry says, twice, and nothing if one is silent.
func TestPin(t *testing.T) {
	copied := t.TempDir()
	copyModule(t, "..", copied)
	stub := filepath.Join(t.TempDir(), "docker")
	say := func(script string) {
		if err := os.WriteFile(stub, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", filepath.Dir(stub)+":"+os.Getenv("PATH"))
	read := func() (all string) {
		for _, name := range []string{"docker-compose.yml", "deploy/Dockerfile",
			"deploy/kubernetes/etcd/kustomization.yaml"} {
			b, err := os.ReadFile(filepath.Join(copied, name))
			if err != nil {
				t.Fatal(err)
			}
			all += string(b)
		}
		return all
	}
	before := read()
	say("case $4 in *grafana*) exit 1 ;; esac; echo sha256:0")
	cmd := exec.Command("deploy/pin.sh")
	cmd.Dir = copied
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "grafana") || read() != before {
		t.Errorf("a silent registry: %v %s", err, out)
	}
	for _, digest := range []string{strings.Repeat("1a", 32), strings.Repeat("2b", 32)} {
		say("echo sha256:" + digest)
		run(t, copied, "deploy/pin.sh")
		after := read()
		for _, want := range []string{"image: quay.io/coreos/etcd:v3.6.16@sha256:" + digest + "\n",
			"image: prom/prometheus:v2.42.0@sha256:" + digest + " #", "FROM golang:1.26.8-bookworm@sha256:" + digest +
				" AS",
			"ARG BASE=gcr.io/distroless/base-debian12:nonroot@sha256:" + digest + "\n",
			"newTag: v3.6.16\n    digest: sha256:" + digest + "\n"} {
			if !strings.Contains(after, want) {
				t.Errorf("not pinned: %q", want)
			}
		}
		if n := strings.Count(after, "sha256:"); n != strings.Count(after, digest) || n != 6 {
			t.Errorf("%d digests, %d of them new", n, strings.Count(after, digest))
		}
	}
}
