package gomlx

import (
	"strings"

	"evenweave"
)

// Layers implements evenweave.Describer: the inputs, then each scope that has weights.
func (m *Model) Layers() []evenweave.Layer { return m.layers }

func layersOf(c *Config, variables []*variable) (all []evenweave.Layer) {
	for i, s := range c.Inputs {
		all = append(all, evenweave.Layer{Name: inputName(i), Output: nameOf(s.String())})
	}
	at := map[string]int{}
	for _, v := range variables {
		if v.Role != evenweave.Trained {
			continue
		}
		scope := strings.TrimPrefix(v.of.Scope(), "/")
		if _, known := at[scope]; !known {
			at[scope] = len(all)
			all = append(all, evenweave.Layer{Name: scope})
		}
		all[at[scope]].Parameters += v.Elements()
	}
	return all
}

// Schedule implements evenweave.Describer.
func (m *Model) Schedule() string {
	if m.config.Schedule != "" {
		return m.config.Schedule
	}
	if m.byPath[lastStepPath()] != nil {
		return "the learning rate depends on the number of the last step"
	}
	return ""
}

// Variables implements evenweave.Inspector.
func (m *Model) Variables() (all []evenweave.Variable) {
	for _, t := range m.state {
		role := t.Role.String()
		if t.equal {
			role = "equal"
		}
		all = append(all, evenweave.Variable{Name: t.Name, Type: t.Type, Shape: t.Shape, Role: role})
	}
	if v := m.builder.store.GetVariable(generatorPath()); v != nil {
		all = append(all, evenweave.Variable{Name: nameOf(v.Path()), Type: evenweave.Uint64,
			Shape: v.Shape().Dimensions, Role: "generator"})
	}
	return all
}
