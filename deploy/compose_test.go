package deploy

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

type composeFile struct {
	Services map[string]struct {
		Volumes     []string
		Command     []string
		NetworkMode string `json:"network_mode"`
	}
	Volumes map[string]any
}

func composeProject(t *testing.T) (project composeFile) {
	t.Helper()
	file, err := os.ReadFile("../docker-compose.yml")
	if err == nil {
		err = yaml.Unmarshal(file, &project)
	}
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// TestOneContainerFillsAVolume: Docker copies what an image has at a mount's path, and its owner, into a volume that is
// empty when a container is created. Compose creates containers side by side, so a second one that copies into the same
// volume may meet the first ("file exists"), or set another owner.
func TestOneContainerFillsAVolume(t *testing.T) {
	project := composeProject(t)
	filledBy := map[string][]string{}
	for service, s := range project.Services {
		for _, mount := range s.Volumes {
			parts := strings.Split(mount, ":")
			if _, named := project.Volumes[parts[0]]; !named {
				continue
			}
			if len(parts) < 3 || !slices.Contains(strings.Split(parts[2], ","), "nocopy") {
				filledBy[parts[0]] = append(filledBy[parts[0]], service)
			}
		}
	}
	for volume := range project.Volumes {
		if by := filledBy[volume]; len(by) != 1 {
			t.Errorf("volume %s is filled by %q: one service fills it, each other mounts it with `nocopy`", volume, by)
		} else if by[0] == "worker" {
			t.Errorf("volume %s is filled by each replica of the worker: mount it with `nocopy`", volume)
		}
	}
}

// TestAContainerHasItsOwnKeysAlone: the authority's key is for what makes and renews certificates, and that has no
// network; each process can read the set of its role. What was made is what is renewed.
func TestAContainerHasItsOwnKeysAlone(t *testing.T) {
	sets := map[string]string{"etcd": "etcd", "coordinator": "coordinator", "worker": "worker", "prometheus": "metrics"}
	services := composeProject(t).Services
	mounted := map[string][]string{}
	for name, s := range services {
		for _, mount := range s.Volumes {
			if volume, _, _ := strings.Cut(mount, ":"); strings.HasPrefix(volume, "certs") {
				mounted[name] = append(mounted[name], strings.TrimSuffix(mount, ":nocopy"))
			}
		}
		if role, ok := sets[name]; ok {
			if want := []string{"certs-" + role + ":/certs:ro,nocopy"}; !slices.Equal(mounted[name], want) {
				t.Errorf("%s mounts %q, expected %q", name, mounted[name], want)
			}
		} else if name != "certs" && name != "renewal" && len(mounted[name]) > 0 {
			t.Errorf("%s mounts %q: expected no certificates", name, mounted[name])
		}
	}
	makes, renews := services["certs"], services["renewal"]
	if !slices.Equal(mounted["certs"], mounted["renewal"]) || len(mounted["certs"]) != 1+len(sets) {
		t.Errorf("made in %q, renewed in %q", mounted["certs"], mounted["renewal"])
	}
	if makes.NetworkMode != "none" || renews.NetworkMode != "none" {
		t.Errorf("they have networks %q and %q", makes.NetworkMode, renews.NetworkMode)
	}
	last := len(renews.Command) - 1
	if last < 1 || !slices.Equal(makes.Command, renews.Command[:last]) ||
		!strings.HasPrefix(renews.Command[last], "--every=") {
		t.Errorf("made by %q, renewed by %q", makes.Command, renews.Command)
	}
}
