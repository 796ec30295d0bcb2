package job

import (
	"encoding/json"
	"fmt"
)

// RecordVersion is the version of the records in etcd. It rises when a record of a version before would be
// misunderstood.
const RecordVersion = 2

// Version is the field "version" of a record: written as RecordVersion, and refused by name where it is higher. A
// record without it is of version 1.
type Version struct{}

// MarshalJSON implements json.Marshaler.
func (Version) MarshalJSON() ([]byte, error) { return json.Marshal(RecordVersion) }

// UnmarshalJSON implements json.Unmarshaler.
func (*Version) UnmarshalJSON(b []byte) error {
	var v int64
	if err := json.Unmarshal(b, &v); err != nil || v < 1 {
		return fmt.Errorf("version %.40s: expected a number of at least 1", b)
	}
	if v > RecordVersion {
		return fmt.Errorf("version %d: this program reads records up to version %d; use the build that wrote it, or "+
			"a newer one", v, RecordVersion)
	}
	return nil
}
