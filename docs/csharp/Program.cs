// Asks a StrokeServe whether it is ready, and has one slice judged: dotnet run HOST:PORT [scan.png]
// Exit codes: 0 answered, 1 not ready or refused, 2 usage. docs/integrate.md explains it.
using System;
using System.Globalization;
using System.IO;
using System.Net.Http;
using System.Security.Cryptography;
using System.Threading;
using System.Threading.Tasks;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Health.V1;
using Grpc.Net.Client;
using Grpc.Net.Client.Configuration;
using Stroke.V1;

internal static class Program
{
    private const string Service = "stroke.v1.StrokeService";

    private static GrpcChannel Connect(string address)
    {
        var predict = new MethodConfig
        {
            Names = { new MethodName { Service = Service, Method = "Predict" } },
            RetryPolicy = new RetryPolicy
            {
                MaxAttempts = 4,
                InitialBackoff = TimeSpan.FromSeconds(0.2),
                MaxBackoff = TimeSpan.FromSeconds(2),
                BackoffMultiplier = 2,
                RetryableStatusCodes = { StatusCode.Unavailable, StatusCode.Cancelled },
            },
        };
        var handler = new SocketsHttpHandler
        {
            UseProxy = false, // images of patients go straight to the server
            PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
            KeepAlivePingDelay = TimeSpan.FromSeconds(30), // how often: see docs/integrate.md
            KeepAlivePingTimeout = TimeSpan.FromSeconds(10),
            // With TLS, and "https://" below: SslOptions = new SslClientAuthenticationOptions {
            //     CertificateChainPolicy = new X509ChainPolicy {
            //         TrustMode = X509ChainTrustMode.CustomRootTrust,
            //         CustomTrustStore = { X509Certificate2.CreateFromPem(File.ReadAllText("ca.pem")) } },
            //     and with a certificate of one's own: ClientCertificates = new X509CertificateCollection {
            //         X509Certificate2.CreateFromPemFile("client.pem", "client.key") } }
        };
        return GrpcChannel.ForAddress("http://" + address, new GrpcChannelOptions
        {
            HttpHandler = handler,
            DisposeHttpClient = true,
            ServiceConfig = new ServiceConfig { MethodConfigs = { predict } },
        });
    }

    private static async Task<bool> IsReady(GrpcChannel channel, string address)
    {
        var request = new HealthCheckRequest { Service = Service };
        var answer = await new Health.HealthClient(channel).CheckAsync(
            request, deadline: DateTime.UtcNow.AddSeconds(2));
        Console.WriteLine($"{address}: {answer.Status}");
        return answer.Status == HealthCheckResponse.Types.ServingStatus.Serving;
    }

    private static async Task Predict(GrpcChannel channel, string file)
    {
        byte[] image = await File.ReadAllBytesAsync(file);
        string digest = Convert.ToHexString(SHA256.HashData(image)).ToLowerInvariant();
        var request = new PredictRequest
        {
            Image = ByteString.CopyFrom(image),
            ImageSha256 = digest,
            Id = Guid.NewGuid().ToString(),
        };
        var answer = await new StrokeService.StrokeServiceClient(channel).PredictAsync(
            request, deadline: DateTime.UtcNow.AddSeconds(10)); // covers all attempts
        if (answer.ImageSha256 != digest)
        {
            throw new IOException("the answer is about another image");
        }
        var verdict = answer.Status == PredictResponse.Types.Status.NotAnalysed // then there is no label
            ? "not analysed"
            : string.Format(CultureInfo.InvariantCulture, "{0} {1:F3}", answer.Label, answer.Confidence);
        Console.WriteLine(string.Format(
            CultureInfo.InvariantCulture, "{0}: {1} ({2} {3}, threshold {4:F3}, id {5})", file, verdict,
            answer.ModelName, answer.ModelVersion, answer.Threshold, answer.Id));
        foreach (var reason in answer.Reasons)
        {
            Console.WriteLine($"{file}: {reason.Reason_}: {reason.Message}");
        }
        foreach (var warning in answer.Warnings)
        {
            Console.WriteLine($"{file}: {warning.Reason}: {warning.Message}");
        }
    }

    public static async Task<int> Main(string[] arguments)
    {
        if (arguments.Length < 1 || arguments.Length > 2)
        {
            Console.Error.WriteLine("usage: dotnet run HOST:PORT [scan.png]");
            return 2;
        }
        string subject = arguments[0];
        try
        {
            using (GrpcChannel channel = Connect(arguments[0])) // make one, and use it for all calls
            {
                if (!await IsReady(channel, arguments[0]))
                {
                    return 1;
                }
                if (arguments.Length == 2)
                {
                    subject = arguments[1];
                    await Predict(channel, arguments[1]);
                }
                return 0;
            }
        }
        catch (RpcException error)
        {
            // A refusal has its reason in the trailing metadata; without one, gRPC itself made the status.
            string reason = error.Trailers.GetValue("stroke-reason") ?? "no reason";
            Console.Error.WriteLine($"{subject}: {error.StatusCode} [{reason}] {error.Status.Detail}");
            return 1;
        }
        catch (IOException error)
        {
            Console.Error.WriteLine($"{subject}: {error.Message}");
            return 1;
        }
    }
}
