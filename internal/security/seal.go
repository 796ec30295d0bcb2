package security

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"evenweave/internal/job"
)

// sealed is a record of the coordinator in etcd, with the coordinator's signature. A process that can write to etcd can
// therefore not publish a record, nor put one of another job, kind or number in its place.
type sealed struct {
	Version job.Version     `json:"version"`
	Number  int64           `json:"number"`
	Record  json.RawMessage `json:"record"`
	Chain   [][]byte        `json:"chain"` // certificates, DER: the coordinator's first, without that of the authority
	Seal    []byte          `json:"seal"`
}

const (
	maxChain = 4
	sealLife = 100 * 365 * 24 * time.Hour
)

// statement is what is signed: the hash of all that the record stands for. No two statements have the same bytes.
func statement(jobName, kind string, number int64, record []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte("evenweave/seal/1"), []byte(jobName), []byte(kind),
		binary.BigEndian.AppendUint64(nil, uint64(number)), record} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// seal signs a record, which is compact JSON.
func seal(pair tls.Certificate, jobName, kind string, number int64, record []byte) ([]byte, error) {
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", pair.PrivateKey)
	}
	sig, err := key.Sign(rand.Reader, statement(jobName, kind, number, record), crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return json.Marshal(sealed{Number: number, Record: record, Chain: pair.Certificate, Seal: sig})
}

// ErrNotSealed says that a record was not written by a coordinator that seals its records.
var ErrNotSealed = errors.New("it has no seal: an earlier build, a process with --insecure or a stranger has written " +
	"it; to go on from the newest checkpoint remove all keys of the job, of a run of `evenweave train` its directory " +
	"etcd")

// verify returns an error unless a record comes from the coordinator of a job. Its certificate may have expired since:
// records are valid for longer.
func (s *sealed) verify(jobName, kind string, roots *x509.CertPool, now time.Time) error {
	switch {
	case len(s.Seal) == 0:
		return ErrNotSealed
	case len(s.Chain) == 0 || len(s.Chain) > maxChain:
		return fmt.Errorf("its seal has %d certificates: expected 1 to %d", len(s.Chain), maxChain)
	}
	chain := make([]*x509.Certificate, len(s.Chain))
	rest := x509.NewCertPool()
	for i, der := range s.Chain {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("certificate %d of its seal: %w", i, err)
		}
		if i > 0 {
			rest.AddCert(chain[i])
		}
	}
	leaf := chain[0]
	sealer, err := identify(leaf)
	if err != nil {
		return fmt.Errorf("its seal: %w", err)
	}
	if want := (Identity{Coordinator, jobName}); sealer != want {
		return fmt.Errorf("%s has sealed it: expected %s", sealer.Name(), want.Name())
	}
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	} else if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: rest, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("its seal is of a certificate that no authority here vouches for: %w", err)
	}
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(key, statement(jobName, kind, s.Number, s.Record), s.Seal) {
		return errors.New("its seal is damaged, or of another record")
	}
	return nil
}

// Seal is a record as it is to stand in etcd: signed by the coordinator's key, or as it is where there is none.
func (t *Transport) Seal(kind string, number int64, record []byte) ([]byte, error) {
	k := t.sealing()
	if k == nil {
		return record, nil
	}
	if k.want.Role != Coordinator {
		return nil, fmt.Errorf("role %s seals no records", k.want.Role)
	}
	return seal(k.set.Load().pair, k.want.Job, kind, number, record)
}

// Unseal returns the record in a value of etcd, and its number. Without keys it verifies nothing, and takes a record
// without a seal too, with number 0.
func (t *Transport) Unseal(kind string, value []byte) (record []byte, number int64, err error) {
	var s sealed
	if err := json.Unmarshal(value, &s); err != nil {
		return nil, 0, err
	}
	k := t.sealing()
	if k != nil {
		err = s.verify(k.want.Job, kind, k.set.Load().roots, k.Now())
	} else if s.Record == nil {
		return value, 0, nil
	}
	if err == nil && (s.Number < 1 || s.Number > job.MaxStep) {
		err = fmt.Errorf("its number is %d: expected 1 to %d", s.Number, int64(job.MaxStep))
	}
	return s.Record, s.Number, err
}

// Sealed says that records are signed, and those that are not refused.
func (t *Transport) Sealed() bool { return t.sealing() != nil }

// sealing are the keys that records are sealed and verified by; nil: there are none.
func (t *Transport) sealing() *Keys {
	if t.keys != nil {
		return t.keys
	}
	return t.seals
}

// SealedBy returns the transport of a cluster on one machine whose records are sealed by the key that KeepSeal has made
// in a directory.
func (t *Transport) SealedBy(dir, jobName string) (*Transport, error) {
	keys, err := Load(FilesIn(dir), Identity{Coordinator, jobName})
	if err != nil {
		return nil, fmt.Errorf("the key that seals records: %w", err)
	}
	return &Transport{sockets: t.sockets, seals: keys}, nil
}

// KeepSeal makes the key that seals the records of a run, in a directory of its own, unless it is there: what a run
// wrote is verified when it is resumed. The certificate vouches for itself, and does not expire.
func KeepSeal(dir, jobName string, now time.Time) error {
	files := FilesIn(dir)
	if _, err := os.Lstat(files.Cert); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := leafOf(Identity{Coordinator, jobName}, now, sealLife)
	der, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	cert := encodeCertificate(der)
	return files.write(key, cert, cert)
}
