// Package composetest holds the tests of docker-compose.yml and of deploy/monitoring: a real cluster with real faults
// (`make test-compose`), and, in every test run, that dashboards and rules ask for metrics that exist.
package composetest
