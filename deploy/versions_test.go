// Package deploy tests what all ways to deploy have in common.
package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// minimums are the first versions without a published fault that matters here.
var minimums = []struct{ what, in, pattern, least string }{
	{"etcd", "*", `quay\.io/coreos/etcd:v([\d.]+)`, "3.6.14"},
	{"etcd", "kubernetes/etcd/kustomization.yaml", `newTag: v([\d.]+)`, "3.6.14"},
	{"golang.org/x/image", "../go.mod", `golang\.org/x/image v([\d.]+)`, "0.43.0"},
	{"etcd's modules", "../go.mod", `go\.etcd\.io/etcd/\w+/v3 v([\d.]+)`, "3.7.1"},
	{"gRPC", "../go.mod", `google\.golang\.org/grpc v([\d.]+)`, "1.85.0"},
	{"Go", "../go.mod", `(?m)^go ([\d.]+)`, "1.26.6"},
	{"Go", "Dockerfile", `golang:([\d.]+)-`, "1.26.6"},
}

func TestVersionsAreNotOlderThan(t *testing.T) {
	texts := map[string]string{"../docker-compose.yml": "", "../go.mod": ""}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Ext(name) != ".go" {
			texts[name] = ""
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range texts {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(b)
	}
	for _, m := range minimums {
		seen := 0
		for name, text := range texts {
			if m.in != "*" && m.in != name {
				continue
			}
			for _, found := range regexp.MustCompile(m.pattern).FindAllStringSubmatch(text, -1) {
				seen++
				if slices.Compare(numbers(t, found[1]), numbers(t, m.least)) < 0 {
					t.Errorf("%s: %s %s, want %s or later", name, m.what, found[1], m.least)
				}
			}
		}
		if seen == 0 {
			t.Errorf("%s is named nowhere in %s: this test has lost its subject", m.what, m.in)
		}
	}
}

func numbers(t *testing.T, version string) (parts []int) {
	for p := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, n)
	}
	return parts
}

// git and the image hold no keys or passwords.
func TestSecretsAreIgnored(t *testing.T) {
	for name, want := range map[string][]string{
		"../.gitignore":    {".env", "*.pem", "*.key", "tls/", "certs/"},
		"../.dockerignore": {"**/.env", "**/*.pem", "**/*.key", "**/tls", "**/certs"},
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		for _, pattern := range want {
			if !slices.Contains(lines, pattern) {
				t.Errorf("%s does not list %s", name, pattern)
			}
		}
	}
}

// The monitoring pages have no administrator and answer no other origin.
func TestMonitoringIsClosed(t *testing.T) {
	b, err := os.ReadFile("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`GF_AUTH_BASIC_ENABLED: "false"`,
		`GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: "true"`, `"--web.cors.origin=^$$"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("docker-compose.yml lacks %s", want)
		}
	}
}
