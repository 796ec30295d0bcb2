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

// Member is the state of a step that the member at an address holds, for a Download that is Quick or not. to are the
// options of calls to it.
func Member(dial Dial, address, job string, step int64, quick bool, to ...grpc.CallOption) Source {
	return from(dial, func() string { return address },
		func(ctx context.Context, conn *grpc.ClientConn, offset, length int64) (blockStream, error) {
			return proto.NewMemberClient(conn).State(ctx,
				&proto.StateRequest{Job: job, Step: step, Offset: offset, Length: length, Quick: quick},
				append(to, proto.AsBlocks)...)
		})
}

// Coordinator is the checkpoint of a step that the coordinator has. Its address is asked for each time, because another
// process may lead by then.
func Coordinator(dial Dial, address func() string, job string, step int64) Source {
	return from(dial, address,
		func(ctx context.Context, conn *grpc.ClientConn, offset, length int64) (blockStream, error) {
			return proto.NewCoordinatorClient(conn).Checkpoint(ctx,
				&proto.CheckpointRequest{Job: job, Step: step, Offset: offset, Length: length}, proto.AsBlocks)
		})
}

// blockStream is a range of a state as a process sends it.
type blockStream = grpc.ServerStreamingClient[proto.Block]

func from(dial Dial, address func() string,
	ask func(ctx context.Context, conn *grpc.ClientConn, offset, length int64) (blockStream, error)) Source {
	return func(ctx context.Context, offset, length int64) (io.Reader, error) {
		conn, err := dial(address())
		if err != nil {
			return nil, err
		}
		stream, err := ask(ctx, conn, offset, length)
		if err != nil {
			return nil, err
		}
		return proto.BlockReader(stream), nil
	}
}
