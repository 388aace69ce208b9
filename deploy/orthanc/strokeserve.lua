-- Sends each CT series of which nothing has come for StableAge seconds to the gateway, as a job that Orthanc's page shows
-- (a job that failed, since the gateway was away, is resubmitted there). Results are no CT series, so that they do not go
-- round.
function OnStableSeries(seriesId, tags, metadata)
   if tags['Modality'] == 'CT' then
      local job = {}
      job['Resources'] = {seriesId}
      job['Synchronous'] = false
      RestApiPost('/modalities/strokeserve/store', DumpJson(job, true))
   end
end
