package main

import (
	"testing"

	"evenweave/evenweavetest"
)

func TestMain(m *testing.M) { evenweavetest.Main(m, main) }

func TestExact(t *testing.T) { evenweavetest.Verify(t, task()) }

// The number of workers changes nothing but the speed.
func TestWorkerCountChangesNothing(t *testing.T) {
	if r := evenweavetest.SameWeights(t, "--epochs", "5"); r.Figures["accuracy"] < 0.8 {
		t.Errorf("accuracy %v", r.Figures["accuracy"])
	}
}
