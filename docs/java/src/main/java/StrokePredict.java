import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import stroke.v1.StrokeServiceGrpc;
import stroke.v1.Stroke.PredictRequest;
import stroke.v1.Stroke.PredictResponse;
import stroke.v1.Stroke.Reason;
import stroke.v1.Stroke.Warning;

/**
 * Asks a StrokeServe whether it is ready, and has one slice judged: StrokePredict HOST:PORT [scan.png]
 *
 * <p>Exit codes: 0 answered, 1 not ready or refused, 2 usage. docs/integrate.md explains it.
 */
public final class StrokePredict {
  private static final String SERVICE = "stroke.v1.StrokeService";
  private static final Metadata.Key<String> REASON =
      Metadata.Key.of("stroke-reason", Metadata.ASCII_STRING_MARSHALLER);

  /** Numbers are doubles, as a JSON parser gives them. */
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name", List.of(Map.of("service", SERVICE, "method", "Predict")),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 4.0,
                          "initialBackoff", "0.2s",
                          "maxBackoff", "2s",
                          "backoffMultiplier", 2.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE", "CANCELLED")))));

  private static ManagedChannel connect(String address) throws IOException {
    return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create())
        // With TLS, instead: TlsChannelCredentials.newBuilder().trustManager(new File("ca.pem")).build()
        // and with a certificate of one's own: .keyManager(new File("client.pem"), new File("client.key")) before build
        .defaultServiceConfig(SERVICE_CONFIG)
        .enableRetry()
        .keepAliveTime(30, TimeUnit.SECONDS) // how often: see docs/integrate.md
        .keepAliveWithoutCalls(true)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .proxyDetector(target -> null) // images of patients go straight to the server
        .build();
  }

  private static boolean isReady(ManagedChannel channel, String address) {
    ServingStatus status =
        HealthGrpc.newBlockingStub(channel)
            .withDeadlineAfter(2, TimeUnit.SECONDS)
            .check(HealthCheckRequest.newBuilder().setService(SERVICE).build())
            .getStatus();
    System.out.println(address + ": " + status);
    return status == ServingStatus.SERVING;
  }

  private static void predict(ManagedChannel channel, String file) throws IOException, GeneralSecurityException {
    byte[] image = Files.readAllBytes(Path.of(file));
    String digest = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(image));
    PredictRequest request =
        PredictRequest.newBuilder()
            .setImage(ByteString.copyFrom(image))
            .setImageSha256(digest)
            .setId(UUID.randomUUID().toString())
            .build();
    PredictResponse answer =
        StrokeServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(10, TimeUnit.SECONDS) // covers all attempts
            .predict(request);
    if (!answer.getImageSha256().equals(digest)) {
      throw new IOException("the answer is about another image");
    }
    boolean isAnalysed = answer.getStatus() != PredictResponse.Status.NOT_ANALYSED; // otherwise there is no label
    String verdict = String.format(Locale.ROOT, "%s %.3f", answer.getLabel(), answer.getConfidence());
    System.out.printf(
        Locale.ROOT,
        "%s: %s (%s %s, threshold %.3f, id %s)%n",
        file,
        isAnalysed ? verdict : "not analysed",
        answer.getModelName(),
        answer.getModelVersion(),
        answer.getThreshold(),
        answer.getId());
    for (Reason reason : answer.getReasonsList()) {
      System.out.println(file + ": " + reason.getReason() + ": " + reason.getMessage());
    }
    for (Warning warning : answer.getWarningsList()) {
      System.out.println(file + ": " + warning.getReason() + ": " + warning.getMessage());
    }
  }

  /** A refusal has its reason in the trailing metadata; without one, gRPC itself made the status. */
  private static String describe(StatusRuntimeException error) {
    Metadata trailers = error.getTrailers();
    String reason = trailers == null ? null : trailers.get(REASON);
    Status status = error.getStatus();
    String cause = status.getCause() == null ? "" : " (" + status.getCause().getMessage() + ")";
    return status.getCode() + " [" + (reason == null ? "no reason" : reason) + "] " + status.getDescription() + cause;
  }

  private static int run(String[] arguments) throws InterruptedException {
    if (arguments.length < 1 || arguments.length > 2) {
      System.err.println("usage: StrokePredict HOST:PORT [scan.png]");
      return 2;
    }
    String subject = arguments[0];
    try {
      ManagedChannel channel = connect(arguments[0]); // make one, and use it for all calls
      try {
        if (!isReady(channel, arguments[0])) {
          return 1;
        }
        if (arguments.length == 2) {
          subject = arguments[1];
          predict(channel, arguments[1]);
        }
        return 0;
      } finally {
        channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
      }
    } catch (StatusRuntimeException error) {
      System.err.println(subject + ": " + describe(error));
      return 1;
    } catch (IOException | GeneralSecurityException error) {
      System.err.println(subject + ": " + error);
      return 1;
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    System.exit(run(arguments));
  }
}
