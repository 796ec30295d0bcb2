package transfer

import (
	"context"
	"io"

	"google.golang.org/grpc"

	"evenweave/proto"
)

// Source sends a range of a state's encoding; length 0: all from the offset on. The reader ends with ctx, which the
// caller must end.
type Source func(ctx context.Context, offset, length int64) (io.Reader, error)

// Dial connects to a process.
type Dial func(address string) (*grpc.ClientConn, error)

// Member is the state of a step that the member at an address holds. to are the options of calls to it.
func Member(dial Dial, address, job string, step int64, to ...grpc.CallOption) Source {
	return func(ctx context.Context, offset, length int64) (io.Reader, error) {
		conn, err := dial(address)
		if err != nil {
			return nil, err
		}
		stream, err := proto.NewMemberClient(conn).State(ctx,
			&proto.StateRequest{Job: job, Step: step, Offset: offset, Length: length}, append(to, proto.AsBlocks)...)
		if err != nil {
			return nil, err
		}
		return proto.BlockReader(stream), nil
	}
}

// Coordinator is the checkpoint of a step that the coordinator has; its address is asked for each time, since another
// process may lead by then.
func Coordinator(dial Dial, address func() string, job string, step int64) Source {
	return func(ctx context.Context, offset, length int64) (io.Reader, error) {
		conn, err := dial(address())
		if err != nil {
			return nil, err
		}
		stream, err := proto.NewCoordinatorClient(conn).Checkpoint(ctx,
			&proto.CheckpointRequest{Job: job, Step: step, Offset: offset, Length: length}, proto.AsBlocks)
		if err != nil {
			return nil, err
		}
		return proto.BlockReader(stream), nil
	}
}
