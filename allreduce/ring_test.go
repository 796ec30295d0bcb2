package allreduce_test

import (
	"testing"

	"go.uber.org/goleak"

	"evenweave/allreduce/allreducetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInMemoryLinks(t *testing.T) {
	allreducetest.Suite(t, func(t *testing.T, size int) []allreducetest.Links {
		return allreducetest.Ring(size, 1, -1, nil)
	})
}
