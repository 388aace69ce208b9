// Asks a StrokeServe whether it is ready, and has one slice judged:
//
//	go run . HOST:PORT [scan.png]
//
// Exit codes: 0 answered, 1 not ready or refused, 2 usage. docs/integrate.md explains it.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "example.org/strokeclient/stroke"
)

const service = "stroke.v1.StrokeService"

const serviceConfig = `{
  "methodConfig": [{
    "name": [{"service": "stroke.v1.StrokeService", "method": "Predict"}],
    "retryPolicy": {
      "maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
    }
  }]
}`

func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// With TLS, instead of insecure: credentials.NewClientTLSFromFile("ca.pem", "") returns it, or an error;
		// and with a certificate of one's own: pair from tls.LoadX509KeyPair("client.pem", "client.key"), pool of the CA,
		// and credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{ // how often: see docs/integrate.md
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
		grpc.WithNoProxy(), // images of patients go straight to the server
	)
}

func isReady(connection *grpc.ClientConn, address string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	request := &healthpb.HealthCheckRequest{Service: service}
	answer, err := healthpb.NewHealthClient(connection).Check(ctx, request)
	if err != nil {
		return false, err
	}
	fmt.Printf("%s: %s\n", address, answer.Status)
	return answer.Status == healthpb.HealthCheckResponse_SERVING, nil
}

// The deadline covers all attempts. A refusal has its reason in the trailing metadata.
func predict(connection *grpc.ClientConn, file string) (reason string, err error) {
	image, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(image))
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", err
	}
	request := &pb.PredictRequest{Image: image, ImageSha256: digest, Id: fmt.Sprintf("%x", id)}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var trailer metadata.MD
	answer, err := pb.NewStrokeServiceClient(connection).Predict(ctx, request, grpc.Trailer(&trailer))
	if err != nil {
		if values := trailer.Get("stroke-reason"); len(values) > 0 {
			reason = values[0]
		}
		return reason, err
	}
	if answer.ImageSha256 != digest {
		return "", errors.New("the answer is about another image")
	}
	verdict := fmt.Sprintf("%s %.3f", answer.Label, answer.Confidence)
	if answer.Status == pb.PredictResponse_NOT_ANALYSED { // then there is no label
		verdict = "not analysed"
	}
	fmt.Printf("%s: %s (%s %s, threshold %.3f, id %s)\n", file, verdict,
		answer.ModelName, answer.ModelVersion, answer.Threshold, answer.Id)
	for _, reason := range answer.Reasons {
		fmt.Printf("%s: %s: %s\n", file, reason.Reason, reason.Message)
	}
	for _, warning := range answer.Warnings {
		fmt.Printf("%s: %s: %s\n", file, warning.Reason, warning.Message)
	}
	return "", nil
}

func report(subject, reason string, err error) int {
	if refusal, ok := status.FromError(err); ok {
		if reason == "" {
			reason = "no reason" // then gRPC itself made the status
		}
		fmt.Fprintf(os.Stderr, "%s: %s [%s] %s\n", subject, refusal.Code(), reason, refusal.Message())
	} else {
		fmt.Fprintf(os.Stderr, "%s: %v\n", subject, err)
	}
	return 1
}

func run(arguments []string) int {
	if len(arguments) < 1 || len(arguments) > 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . HOST:PORT [scan.png]")
		return 2
	}
	address := arguments[0]
	connection, err := connect(address) // make one, and use it for all calls
	if err != nil {
		return report(address, "", err)
	}
	defer connection.Close()
	if ready, err := isReady(connection, address); err != nil {
		return report(address, "", err)
	} else if !ready {
		return 1
	}
	if len(arguments) == 2 {
		if reason, err := predict(connection, arguments[1]); err != nil {
			return report(arguments[1], reason, err)
		}
	}
	return 0
}

func main() {
	os.Exit(run(os.Args[1:]))
}
