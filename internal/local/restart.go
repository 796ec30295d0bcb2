package local

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// This file holds the rules by which the supervisor replaces a process that has ended.

const (
	quickDeath   = 10 * time.Second // a process that ends by itself sooner has failed
	quickDeaths  = 3                // failures in a row before it is given up
	quickKill    = time.Minute      // the same for a process that a signal ends
	quickKills   = 10
	restartPause = 200 * time.Millisecond // before a restart; it doubles with each failure in a row
	longestPause = 10 * time.Second
)

// ExitUnfit is the exit code of a worker whose state goes wrong again and again: it is not started again.
const ExitUnfit = 3

// exited decides what follows from the end of a process: the end of the run (done), a restart, or nothing.
func (s *supervisor) exited(e exited) (done bool, err error) {
	p := e.p
	s.gone(p)
	if s.procs[p.name] != p {
		return false, nil // another process has its name now
	}
	signal, code := ending(e.err)
	worker := workerNumber(p.name) > 0
	switch {
	case p.name == "coordinator" && signal == 0 && e.err == nil && s.cfg.Finished():
		delete(s.procs, p.name)
		return true, nil
	case p.name == "coordinator" && code > 0: // without a code it resigned: another one leads the job
		delete(s.procs, p.name)
		tail := s.tail(p)
		if crashed(tail) { // what is Go's exit code of a panic is that of bad usage here
			code = 1
		}
		return true, &Exit{Code: code, Tail: tail}
	case p.retire || worker && e.err == nil:
		delete(s.procs, p.name)
		return false, nil
	case worker && code == ExitUnfit:
		s.unfit[p.name] = struct{}{}
		return s.giveUp(p, "it is unfit: "+s.tail(p))
	}
	return s.again(p, e.err, signal)
}

// ending returns the signal that ended a process, or its exit code; code -1: the process did not start.
func ending(err error) (signal syscall.Signal, code int) {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return 0, 0
	case !ok:
		return 0, -1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal(), 0
	}
	return 0, exit.ExitCode()
}

// again starts a process again, after a pause that doubles with each short life in a row; after too many it gives up.
func (s *supervisor) again(p *process, cause error, signal syscall.Signal) (done bool, err error) {
	lived := s.now().Sub(p.started)
	if lived > quickDeath {
		p.deaths = 0
	}
	if lived > quickKill {
		p.kills = 0
	}
	pause := time.Duration(0)
	if signal == 0 {
		p.deaths++
		pause = min(restartPause<<(p.deaths-1), longestPause)
	} else if !s.cfg.Faults { // a run with seeded faults kills on purpose, without a pause
		if p.kills++; p.kills > 1 { // a single kill has a cause outside: no pause
			pause = min(restartPause<<(p.kills-2), longestPause)
		}
	}
	switch {
	case p.deaths >= quickDeaths:
		reason := s.tail(p)
		if _, code := ending(cause); code < 0 { // it did not start
			reason = cause.Error()
		}
		return s.giveUp(p, fmt.Sprintf("failed %d times in a row: %s", p.deaths, reason))
	case p.kills >= quickKills:
		return s.giveUp(p, fmt.Sprintf("ended %d times in a row by %s", p.kills, describeSignal(signal)))
	}
	how := fmt.Sprint(cause)
	if signal != 0 {
		how = describeSignal(signal)
	}
	p.ended = how
	if pause == 0 {
		s.startAgain(p)
		return false, nil
	}
	p.paused = true
	s.readers.Go(func() {
		select {
		case <-s.after(pause):
		case <-s.closing:
			return
		}
		select {
		case s.due <- p:
		case <-s.closing:
		}
	})
	return false, nil
}

// resume starts a process whose pause is over, if it is still wanted.
func (s *supervisor) resume(p *process) {
	p.paused = false
	if s.procs[p.name] == p && !p.retire {
		s.startAgain(p)
	}
}

// startAgain says so only now: during the pause the run may end.
func (s *supervisor) startAgain(p *process) {
	s.cfg.Log.Warn("starting again", "process", p.name, "after", p.ended)
	s.start(p)
}

// giveUp starts a process no more. The run goes on without a worker if another worker is left; otherwise it fails.
func (s *supervisor) giveUp(p *process, why string) (done bool, err error) {
	delete(s.procs, p.name)
	why = p.name + " " + why
	if workerNumber(p.name) > 0 {
		for name := range s.procs {
			if workerNumber(name) > 0 {
				s.cfg.Log.Warn("going on without a worker", "process", p.name, "why", why)
				return false, nil
			}
		}
	}
	return true, &Exit{Code: 1, Tail: why}
}
