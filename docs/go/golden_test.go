package main

import (
	"bytes"
	"os"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "example.org/strokeclient/stroke"
)

// Tests the stubs without a server, against the golden messages: go test .
func TestGolden(t *testing.T) {
	for name, fresh := range map[string]func() proto.Message{
		"predict_request":  func() proto.Message { return new(pb.PredictRequest) },
		"predict_response": func() proto.Message { return new(pb.PredictResponse) },
		"not_analysed":     func() proto.Message { return new(pb.PredictResponse) },
		"three_classes":    func() proto.Message { return new(pb.PredictResponse) },
		"stream_error":     func() proto.Message { return new(pb.PredictStreamResponse) },
	} {
		wire, fields := fresh(), fresh()
		data := read(t, name+".bin")
		if err := proto.Unmarshal(data, wire); err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal(read(t, name+".json"), fields); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(wire, fields) {
			t.Errorf("%s: these bytes are not these fields", name)
		}
		written, err := proto.MarshalOptions{Deterministic: true}.Marshal(fields)
		if err != nil || !bytes.Equal(written, data) {
			t.Errorf("%s: these fields are not these bytes (%v)", name, err)
		}
	}
}

func read(t *testing.T, name string) []byte {
	data, err := os.ReadFile("../../proto/golden/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
